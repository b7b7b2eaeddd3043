"""Runs the cases of this folder on the first AMD GPU of this machine: python check.py [--compile] [--bench] [words ...]

Needs hip-python and numpy, and of HipGPT nothing. See README.md for what the files mean. Words choose the cases whose
names hold one of them. Prints every case that is off and ends with 1 if there is any. --bench times the steps of three
models instead, and writes bench.json beside this file.
"""

import argparse
import ctypes
import json
import sys
import time
from pathlib import Path

import numpy as np

try:
    from rocm.bindings import hip, hiprtc
except ImportError:
    from hip import hip, hiprtc  # before hip-python 10

HERE = Path(__file__).parent
DTYPES = {"f32": np.float32, "i32": np.int32, "bf16": np.uint16}
LEAST_SECONDS, SHOWN = 0.1, 12  # of a measurement; ops of a model
SCALARS = {"i64": ctypes.c_int64, "i32": ctypes.c_int32, "f32": ctypes.c_float}


def checked(result):
    status, *values = result
    if status != 0:
        sys.exit(f"{status!r}")
    return values[0] if len(values) == 1 else values


def compile_sources(entry):
    """Return the code object that HIPRTC makes for the GPU at hand from an object's sources."""
    folder = HERE / entry["sources"]
    texts = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    source = texts.pop(entry["source"])
    names = [name.encode() for name in texts]
    program = checked(
        hiprtc.hiprtcCreateProgram(source, entry["source"].encode(), len(names), list(texts.values()), names)
    )
    options = [option.encode() for option in entry["options"]]
    (status,) = hiprtc.hiprtcCompileProgram(program, len(options), options)
    if status != 0:
        log = bytearray(checked(hiprtc.hiprtcGetProgramLogSize(program)))
        checked(hiprtc.hiprtcGetProgramLog(program, log))
        sys.exit(f"{entry['source']}: {status!r}\n{log.decode()}")
    image = bytearray(checked(hiprtc.hiprtcGetCodeSize(program)))
    checked(hiprtc.hiprtcGetCode(program, image))
    return bytes(image)


class Addresses:
    """Stands for a dictionary by buffer where the buffers are addresses already."""

    def get(self, address):
        return address


class Gpu:
    def __init__(self, manifest, compiles):
        checked(hip.hipInit(0))
        checked(hip.hipSetDevice(0))
        properties = checked(hip.hipGetDeviceProperties(0))
        self.name = f"{properties.name} ({properties.gcnArchName})"
        print(self.name)
        if properties.gcnArchName.split(":")[0] != manifest["arch"]:
            sys.exit(f"these files are for {manifest['arch']}")
        self.stream, self.objects, self.compiles = checked(hip.hipStreamCreate()), manifest["objects"], compiles
        self.modules = {}

    def function(self, name, kernel):
        if name not in self.modules:
            entry = self.objects[name]
            image = compile_sources(entry) if self.compiles else (HERE / entry["file"]).read_bytes()
            self.modules[name] = checked(hip.hipModuleLoadData(image)), image  # HIP may read the image later
        return checked(hip.hipModuleGetFunction(self.modules[name][0], kernel.encode()))

    def allocate(self, values):
        address = int(checked(hip.hipMalloc(max(1, values.nbytes))))
        checked(hip.hipMemcpyHtoDAsync(address, values.ctypes.data, values.nbytes, self.stream))
        return address

    def launch(self, launch, addresses):
        arguments = []
        for argument in launch["arguments"]:
            if argument["type"] == "pointer":
                arguments.append(ctypes.c_void_p(addresses.get(argument["buffer"])))
            else:
                arguments.append(SCALARS[argument["type"]](argument["value"]))
        function, shared = self.function(launch["object"], launch["kernel"]), launch["dynamic_shared_bytes"]
        shape = *launch["grid"], *launch["block"]
        checked(hip.hipModuleLaunchKernel(function, *shape, shared, self.stream, None, tuple(arguments)))

    def launch_at(self, launch, starts):
        """Launch with pointers that are given as an allocation and an offset."""
        for argument in launch["arguments"]:
            if argument["type"] == "pointer" and "buffer" not in argument:
                at = argument["allocation"]
                argument |= {"buffer": None if at is None else starts[at] + argument["offset"]}
        self.launch(launch, Addresses())

    def wait(self):
        checked(hip.hipStreamSynchronize(self.stream))

    def read(self, address, shape, dtype):
        values = np.empty(shape, dtype)
        checked(hip.hipMemcpyDtoHAsync(values.ctypes.data, address, values.nbytes, self.stream))
        checked(hip.hipStreamSynchronize(self.stream))
        return values


def distance(got, dtype, arrays, name):
    """Return the largest error of an output in units of its tolerance: 1 is still right."""
    wanted = arrays[f"expected.{name}"]
    if f"tolerance.{name}" not in arrays:
        return 0.0 if np.array_equal(got, wanted) else np.inf
    if dtype == "bf16":
        got = (got.astype(np.uint32) << 16).view(np.float32)
    error, tolerance = np.abs(got.astype(np.float64) - wanted), arrays[f"tolerance.{name}"]
    ratio = np.divide(error, tolerance, out=np.where(error == 0, 0.0, np.inf), where=tolerance > 0)
    return np.inf if np.isnan(ratio).any() else float(ratio.max())


def run(gpu, case):
    """Run a case; return by output its distance."""
    arrays, addresses = np.load(HERE / case["arrays"]), {}
    for buffer in case["buffers"]:
        if buffer["access"] == "scratch":
            values = np.full(buffer["shape"], np.nan, DTYPES[buffer["dtype"]])
        else:
            values = arrays[f"before.{buffer['name']}"]
        addresses[buffer["name"]] = gpu.allocate(values)
    for launch in case["launches"]:
        gpu.launch(launch, addresses)
    found = {}
    for buffer in case["buffers"]:
        name, dtype = buffer["name"], buffer["dtype"]
        if name in case["outputs"]:
            got = gpu.read(addresses[name], buffer["shape"], DTYPES[dtype])
            found[name] = distance(got, dtype, arrays, name)
    for address in addresses.values():
        checked(hip.hipFree(address))
    return found


def filled(fill):
    """Return the values of a fill of a model's memory."""
    if fill["values"] == "one":
        return np.ones(fill["elements"], np.float32)
    values = np.random.default_rng(0).normal(0, 0.02, fill["elements"]).astype(np.float32)
    return values if fill["dtype"] == "f32" else (values.view(np.uint32) >> 16).astype(np.uint16)


def seconds(gpu, act):
    """Return how long act() takes on the GPU: the mean of as many repetitions as take LEAST_SECONDS."""
    act()
    gpu.wait()
    count = 1
    while True:
        started = time.perf_counter()
        for _ in range(count):
            act()
        gpu.wait()
        taken = time.perf_counter() - started
        if taken >= LEAST_SECONDS:
            return taken / count
        count = 2 * count if taken <= 0 else max(count + 1, int(count * LEAST_SECONDS / taken) + 1)


def time_launches(gpu, launches, starts):
    return seconds(gpu, lambda: [gpu.launch_at(launch, starts) for launch in launches])


def time_model(gpu, model):
    """Return a model's seconds a step, and those of each op of one shape, with how often a step has it."""
    starts = [gpu.allocate(np.zeros(size, np.uint8)) for size in model["memory"]]
    for fill in model["fills"]:
        values = filled(fill)
        address = starts[fill["allocation"]] + fill["offset"]
        checked(hip.hipMemcpyHtoDAsync(address, values.ctypes.data, values.nbytes, gpu.stream))
        gpu.wait()
    step = time_launches(gpu, [launch for op in model["ops"] for launch in op["launches"]], starts)
    rows = {}
    for op in model["ops"]:
        row = rows.setdefault((op["op"], op["sizes"]), {**op, "times": 0})
        row["times"] += 1
    for row in rows.values():
        row["seconds"] = time_launches(gpu, row.pop("launches"), starts)
    for start in starts:
        checked(hip.hipFree(start))
    return {"name": model["name"], "tokens": model["tokens"], "step_seconds": step, "ops": list(rows.values())}


def bench(gpu, manifest, words):
    """Time the models, print the ops that take longest, and write bench.json."""
    models = [model for model in manifest["models"] if not words or model["name"] in words]
    if not models:
        sys.exit(f"no such model; there are {[model['name'] for model in manifest['models']]}")
    found = [time_model(gpu, model) for model in models]
    for model in found:
        step = model["step_seconds"]
        print(f"{model['name']}: {step * 1e3:.3f} ms a step, {model['tokens'] / step:,.0f} tokens/s")
        for row in sorted(model["ops"], key=lambda row: -row["seconds"] * row["times"])[:SHOWN]:
            taken = row["seconds"]
            rates = f"{row['operations'] / taken / 1e12:8.2f} TFLOP/s {row['bytes'] / taken / 1e9:8.0f} GB/s"
            if row["estimate_tflops"]:
                rates += f", the model's estimate {row['estimate_tflops']:.0f} TFLOP/s"
            print(f"  {taken * 1e3:9.4f} ms x {row['times']:3} {rates}  {row['op']} {row['sizes']}")
    result = {"gpu": gpu.name, "arch": manifest["arch"], "compiler": manifest["compiler"], "models": found}
    (HERE / "bench.json").write_text(json.dumps(result, indent=1))
    print(f"please send {HERE / 'bench.json'} to the project, with the versions of ROCm and of the driver")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compile", action="store_true", help="by HIPRTC, from sources/, in place of objects/")
    parser.add_argument("--bench", action="store_true", help="time the training steps of three models: S1, S2, S3")
    parser.add_argument("words", nargs="*", help="run the cases whose names hold one of these, or time these models")
    arguments = parser.parse_args()
    manifest = json.loads((HERE / "manifest.json").read_text())
    gpu = Gpu(manifest, arguments.compile)
    if arguments.bench:
        bench(gpu, manifest, arguments.words)
        return
    chosen = [c for c in manifest["cases"] if not arguments.words or any(word in c["name"] for word in arguments.words)]
    worst, wrong = 0.0, 0
    for case in chosen:
        found = run(gpu, case)
        worst = max(worst, *found.values())
        if max(found.values()) > 1:
            wrong += 1
            print(f"WRONG {case['name']}: {found}")
    print(f"{len(chosen)} cases, {wrong} wrong; the largest error is {worst:.3g} of its tolerance")
    sys.exit(1 if wrong or not chosen else 0)


if __name__ == "__main__":
    main()
