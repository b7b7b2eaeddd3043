// The stand-in's HIPRTC: the C++ compiler, kernel.h and a code object that is a shared library behind a short header.
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "fakehip.h"

#define API extern "C" __attribute__((visibility("default")))

namespace {

enum Result { SUCCESS = 0, INVALID_INPUT = 3, INVALID_PROGRAM = 4, INVALID_OPTION = 5, COMPILATION = 6 };

// Outline checks of every load and store, and of the alignment that its type promises; none of what would need a shadow memory.
const std::string CHECKS =
    " -fsanitize=kernel-address --param asan-instrumentation-with-call-threshold=0 --param asan-stack=0"
    " --param asan-globals=1 -fsanitize=alignment -fno-sanitize-recover=alignment";

struct Program {
    std::string name, log, code;
    std::vector<std::pair<std::string, std::string>> files;  // name, text; the source first
};

std::string read_all(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

// Returns the names of the kernels in a preprocessed source: each follows `__global__ void`, maybe on the next line.
std::vector<std::string> kernels_of(const std::string& text) {
    const std::string mark = "__global__", result = "void";
    std::vector<std::string> names;
    for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1)) {
        size_t begin = text.find(result, at) + result.size();
        begin = text.find_first_not_of(" \n", begin);
        names.push_back(text.substr(begin, text.find('(', begin) - begin));
    }
    return names;
}

// Where a library is stored, in the folder $FAKEHIP_STORE; empty without that variable. key: all that the library is made of.
std::filesystem::path stored_library(const std::string& key) {
    const char* const folder = std::getenv("FAKEHIP_STORE");
    if (!folder) return {};
    std::filesystem::create_directories(folder);
    return std::filesystem::path(folder) / std::to_string(std::hash<std::string>()(key));
}

// Writes a file at once, because another process may read it.
void write_at_once(const std::filesystem::path& path, const std::string& content) {
    const std::string draft = path.string() + "-" + std::to_string(getpid());
    std::ofstream file(draft, std::ios::binary);
    file << content;
    file.close();
    if (file)
        std::filesystem::rename(draft, path);
    else
        std::filesystem::remove(draft);
}

int run(Program& program, const std::string& folder, const std::string& command) {
    const int status = system(("cd '" + folder + "' && " FAKEHIP_CXX " -w " + command + " 2> log").c_str());
    program.log = read_all(folder + "/log");
    return status;
}

Result compile(Program& program, const std::string& folder, const std::string& options) {
    for (const auto& [name, text] : program.files) {
        const std::filesystem::path path = folder + "/" + name;
        std::filesystem::create_directories(path.parent_path());
        std::ofstream(path) << text;
    }
    const std::string common = options + " -I. -include '" FAKEHIP_FOLDER "/kernel.h' -x c++ ";
    if (run(program, folder, "-E -P" + common + "'" + program.name + "' -o preprocessed")) return COMPILATION;
    const std::string preprocessed = read_all(folder + "/preprocessed");
    std::ofstream exports(folder + "/exports.cpp");
    exports << "namespace {\n#include \"" << program.name
            << "\"\n}\n";  // all its own: what is shared may not leave the library
    for (const std::string& name : kernels_of(preprocessed)) exports << "FAKEHIP_EXPORT(" << name << ")\n";
    exports.close();
    // Bsymbolic: the kernel `advance` is this library's, not the C library's
    // -O2: -O3 compiles for twice as long, and the checks take the time of a run
    const std::string flags = "-O2 -shared -fPIC -Wl,-Bsymbolic -fno-exceptions -D__global__=" + CHECKS;
    const std::string made_of = FAKEHIP_CXX + flags + common + preprocessed + read_all(folder + "/exports.cpp");
    const std::filesystem::path stored = stored_library(made_of + read_all(FAKEHIP_FOLDER "/kernel.h"));
    std::string library = stored.empty() ? "" : read_all(stored);
    if (library.empty()) {
        if (run(program, folder, flags + common + "exports.cpp -o library")) return COMPILATION;
        library = read_all(folder + "/library");
        if (!stored.empty()) write_at_once(stored, library);
    }
    const uint64_t size = library.size();
    program.code = "FAKEHIP\n" + std::string(reinterpret_cast<const char*>(&size), 8) + library;
    return SUCCESS;
}

}  // namespace

API int hiprtcVersion(int* major, int* minor) {
    *major = *minor = 0;
    return SUCCESS;
}

API const char* hiprtcGetErrorString(int result) {
    switch (result) {
        case SUCCESS:
            return "HIPRTC_SUCCESS";
        case INVALID_INPUT:
            return "HIPRTC_ERROR_INVALID_INPUT";
        case INVALID_PROGRAM:
            return "HIPRTC_ERROR_INVALID_PROGRAM";
        case INVALID_OPTION:
            return "HIPRTC_ERROR_INVALID_OPTION";
        case COMPILATION:
            return "HIPRTC_ERROR_COMPILATION";
        default:
            return "an error that the stand-in does not know";
    }
}

API int hiprtcCreateProgram(Program** program, const char* source, const char* name, int header_count,
                            const char** headers, const char** names) {
    if (!source || !name) return INVALID_INPUT;
    *program = new Program{name, "", "", {{name, source}}};
    for (int i = 0; i < header_count; ++i) (*program)->files.emplace_back(names[i], headers[i]);
    return SUCCESS;
}

API int hiprtcCompileProgram(Program* program, int option_count, const char** options) {
    std::string accepted;
    for (int i = 0; i < option_count; ++i) {
        const std::string option = options[i];
        const std::string target = "--offload-arch=";
        if (option.rfind("-D", 0) == 0 || option.rfind("-std=", 0) == 0) {
            accepted += " '" + option + "'";
        } else if (option.rfind(target, 0) == 0) {
            accepted +=
                " -D__" + option.substr(target.size(), option.find(':') - target.size()) + "__";  // as clang says it
        } else if (option != "-O3") {
            program->log = "the stand-in does not know the option " + option;
            return INVALID_OPTION;
        }
    }
    char folder[] = "/tmp/fakehip-XXXXXX";
    if (!mkdtemp(folder)) return INVALID_PROGRAM;
    const Result result = compile(*program, folder, accepted);
    if (system(("rm -r " + std::string(folder)).c_str())) return INVALID_PROGRAM;
    return result;
}

API int hiprtcDestroyProgram(Program** program) {
    delete *program;
    *program = nullptr;
    return SUCCESS;
}

API int hiprtcGetProgramLogSize(const Program* program, size_t* size) {
    *size = program->log.size() + 1;
    return SUCCESS;
}

API int hiprtcGetProgramLog(const Program* program, char* log) {
    strcpy(log, program->log.c_str());
    return SUCCESS;
}

API int hiprtcGetCodeSize(const Program* program, size_t* size) {
    *size = program->code.size();
    return SUCCESS;
}

API int hiprtcGetCode(const Program* program, char* code) {
    memcpy(code, program->code.data(), program->code.size());
    return SUCCESS;
}
