// libFuzzer's target: kernels/bpe/api.cpp on any bytes, under the address sanitizer, against definitions written here
// with nothing but loops. tests/support/fuzz_tokenizer.py compiles and runs it.
//
// An input is: options, number of merges, two bytes for each merge if it brings its own, and the text.
#include "bpe/api.cpp"

#include <cstdio>
#include <map>

namespace {

using Words = std::vector<std::vector<uint32_t>>;
constexpr size_t MOST_MERGES = 24;
constexpr size_t BEYOND_A_WINDOW = bpe::WINDOW_BYTES + 200;
constexpr size_t LONGEST_WORD = 300;  // that the quadratic definition is run on
std::vector<uint8_t> class_table;

struct Input {
    int64_t pattern;
    bool own_merges, repeated, in_halves;
    std::vector<uint32_t> merges;  // two numbers each
    std::vector<char> text;        // of exactly its size, so that reading beyond it is seen
};

void check(bool holds, const char* claim) {
    if (holds) return;
    std::fprintf(stderr, "not true: %s\n", claim);
    __builtin_trap();
}

Input read(const uint8_t* data, size_t size) {
    const auto next = [&]() -> uint32_t { return size ? --size, *data++ : 0; };
    const uint32_t options = next();
    Input input{options & 3, (options & 4) != 0, (options & 8) != 0, (options & 16) != 0, {}, {}};
    const uint32_t count = next() % (MOST_MERGES + 1);
    for (uint32_t i = 0; input.own_merges && i < count; ++i)
        for (int side = 0; side < 2; ++side) {
            const uint32_t byte = next();  // the upper ones stand for tokens made before
            input.merges.push_back(byte >= 0xE0 && i > 0 ? bpe::BYTES + byte % i : byte);
        }
    input.text.assign(data, data + size);
    if (input.repeated)
        while (size && input.text.size() < BEYOND_A_WINDOW) input.text.insert(input.text.end(), data, data + size);
    input.text.shrink_to_fit();
    if (!input.own_merges) input.merges.resize(2 * count);
    return input;
}

// Calls body(document) between the literals of <|endoftext|>, and between(), where one stands.
template <class Body, class Between>
void for_documents(std::string_view text, Body body, Between between) {
    for (;;) {
        const size_t end = text.find(END_OF_TEXT);
        body(text.substr(0, end));
        if (end == std::string_view::npos) return;
        between();
        text.remove_prefix(end + END_OF_TEXT.size());
    }
}

std::vector<int64_t> pieces(std::string_view text, int64_t pattern, bool alone) {
    std::vector<int64_t> starts(text.size() + 1);
    const int64_t count =
        bpe_pieces(text.data(), static_cast<int64_t>(text.size()), class_table.data(), pattern, alone, starts.data());
    starts.resize(static_cast<size_t>(count));
    return starts;
}

Words words_of(const Input& input) {
    Words words;
    for_documents(
        {input.text.data(), input.text.size()},
        [&](std::string_view document) {
            const std::vector<int64_t> starts = pieces(document, input.pattern, true);
            check(starts == pieces(document, input.pattern, false), "windows find the pieces of the definition");
            check(starts.back() == static_cast<int64_t>(document.size()), "pieces reach the end of the text");
            for (size_t i = 0; i + 1 < starts.size(); ++i) {
                check(starts[i] < starts[i + 1], "no piece is empty");
                const auto* const bytes = reinterpret_cast<const unsigned char*>(document.data());
                words.emplace_back(bytes + starts[i], bytes + starts[i + 1]);
            }
        },
        [&] { words.emplace_back(); });  // an empty word stands for <|endoftext|>
    return words;
}

void replace(std::vector<uint32_t>& tokens, uint32_t left, uint32_t right, uint32_t merged) {
    size_t kept = 0;
    for (size_t i = 0; i < tokens.size(); ++i) {
        const bool found = tokens[i] == left && i + 1 < tokens.size() && tokens[i + 1] == right;
        tokens[kept++] = found ? merged : tokens[i];
        i += found;
    }
    tokens.resize(kept);
}

// Merges by the definition: count all pairs, replace the best, again.
std::vector<uint32_t> trained_by_definition(Words words, size_t wanted) {
    std::vector<uint32_t> merges;
    while (merges.size() < 2 * wanted) {
        std::map<uint64_t, int64_t> counts;
        for (const auto& word : words)
            for (size_t i = 0; i + 1 < word.size(); ++i) ++counts[bpe::pair_key(word[i], word[i + 1])];
        if (counts.empty()) break;
        auto best = counts.begin();  // of equal counts the smallest pair, as the map is in order
        for (auto one = counts.begin(); one != counts.end(); ++one)
            if (one->second > best->second) best = one;
        const uint32_t left = static_cast<uint32_t>(best->first >> 32), right = static_cast<uint32_t>(best->first);
        for (auto& word : words) replace(word, left, right, bpe::BYTES + static_cast<uint32_t>(merges.size() / 2));
        merges.insert(merges.end(), {left, right});
    }
    return merges;
}

std::vector<uint32_t> trained(const Input& input, size_t wanted) {
    const std::string_view text(input.text.data(), input.text.size());
    void* const counters[] = {bpe_counter_new(), bpe_counter_new()};
    size_t half = 0;  // two threads' counts must join to the whole's; a document's end is a place to cut
    if (input.in_halves) half = std::min(text.size(), text.find(END_OF_TEXT, text.size() / 2));
    const auto add = [&](void* counter, std::string_view part) {
        check(bpe_counter_add(counter, part.data(), static_cast<int64_t>(part.size()), class_table.data(),
                              input.pattern) >= 0,
              "words are counted");
    };
    add(counters[0], text.substr(0, half));
    add(counters[1], text.substr(half));
    bpe_counter_join(counters[0], counters[1]);
    void* const trainer = bpe_trainer_new(counters[0]);
    std::vector<bpe::Merge> found(wanted);
    found.resize(static_cast<size_t>(bpe_trainer_train(trainer, static_cast<int64_t>(wanted), found.data())));
    bpe_trainer_free(trainer);
    for (void* counter : counters) bpe_counter_free(counter);
    std::vector<uint32_t> merges;
    for (const bpe::Merge& merge : found) merges.insert(merges.end(), {merge.left, merge.right});
    return merges;
}

// A word's tokens by the definition: the earliest merge that fits, everywhere from left to right, again.
void merge_by_definition(std::vector<uint32_t>& word, const std::vector<uint32_t>& merges) {
    for (bool merged = true; merged;) {
        merged = false;
        for (size_t rank = 0; rank < merges.size() / 2 && !merged; ++rank) {
            const size_t before = word.size();
            replace(word, merges[2 * rank], merges[2 * rank + 1], bpe::BYTES + static_cast<uint32_t>(rank));
            merged = word.size() < before;
        }
    }
}

void check_encoding(const Input& input, const std::vector<uint32_t>& merges, Words words) {
    const int64_t count = static_cast<int64_t>(merges.size() / 2), size = static_cast<int64_t>(input.text.size());
    std::vector<uint32_t> ids(bpe::BYTES + merges.size() / 2);
    for (size_t i = 0; i < ids.size(); ++i)
        ids[i] = static_cast<uint32_t>(ids.size() - 1 - i);  // not the tokens' own numbers
    const uint32_t special = static_cast<uint32_t>(ids.size());
    const int64_t special_size = static_cast<int64_t>(END_OF_TEXT.size());
    void* const tokens = bpe_tokens_new(merges.data(), count, ids.data(), input.pattern, nullptr, nullptr, nullptr, 0,
                                        END_OF_TEXT.data(), &special_size, &special, 1);
    void* const encoder = bpe_encoder_new(tokens);
    const char* const texts[] = {input.text.data(), input.text.data()};
    const int64_t sizes[] = {size, size};
    int64_t ends[3];
    std::vector<uint32_t> both(2 * input.text.size() + bpe::SPARE_IDS);
    bpe_encoder_encode(encoder, texts, sizes, 2, class_table.data(), both.data(), ends);
    const std::vector<uint32_t> found(both.begin(), both.begin() + ends[1]),
        again(both.begin() + ends[1], both.begin() + ends[2]);
    bpe_encoder_free(encoder);
    bpe_tokens_free(tokens);
    check(found == again, "a warm cache gives the same ids");

    std::vector<std::string> spelled(ids.size());
    for (uint32_t i = 0; i < bpe::BYTES; ++i) spelled[i] = std::string(1, static_cast<char>(i));
    for (size_t i = 0; i < merges.size() / 2; ++i)
        spelled[bpe::BYTES + i] = spelled[merges[2 * i]] + spelled[merges[2 * i + 1]];
    std::string table;
    std::vector<int64_t> offsets{0};
    for (size_t id = 0; id <= ids.size(); ++id) {
        table += id < ids.size() ? spelled[ids.size() - 1 - id] : std::string(END_OF_TEXT);
        offsets.push_back(static_cast<int64_t>(table.size()));
    }
    void* const decoder = bpe_decoder_new(table.data(), offsets.data(), static_cast<int64_t>(offsets.size()) - 1);
    check(bpe_decoder_size(decoder, found.data(), ends[1]) == size, "decoding gives as many bytes");
    std::vector<char> decoded(input.text.size());
    bpe_decoder_decode(decoder, found.data(), ends[1], decoded.data(), size);
    bpe_decoder_free(decoder);
    check(decoded == input.text, "decoding gives the text");

    for (const auto& word : words)
        if (word.size() > LONGEST_WORD) return;
    size_t at = 0;
    for (size_t i = 0; i < words.size(); ++i) {
        merge_by_definition(words[i], merges);
        if (words[i].empty()) check(at < found.size() && found[at++] == special, "<|endoftext|> is its own token");
        for (const uint32_t token : words[i])
            check(at < found.size() && found[at++] == ids[token], "ids are the definition's");
    }
    check(at == found.size(), "there are no ids beyond the definition's");
}

}  // namespace

// HIPGPT_CLASS_TABLE names the file that has pretokenize.class_table().
extern "C" int LLVMFuzzerInitialize(int*, char***) {
    class_table.resize(bpe::CLASS_TABLE_SIZE);
    const char* const name = std::getenv("HIPGPT_CLASS_TABLE");
    std::FILE* const file = name ? std::fopen(name, "rb") : nullptr;
    check(file && std::fread(class_table.data(), 1, class_table.size(), file) == class_table.size(),
          "HIPGPT_CLASS_TABLE names the table's file");
    std::fclose(file);
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    Input input = read(data, size);
    Words words = words_of(input);
    if (!input.own_merges) {
        const size_t wanted = input.merges.size() / 2;
        input.merges = trained(input, wanted);
        check(input.merges == trained_by_definition(words, wanted), "training finds the definition's merges");
    }
    check_encoding(input, input.merges, std::move(words));
    return 0;
}
