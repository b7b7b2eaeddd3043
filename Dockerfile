# hipgpt in a container, for CPUs (the default) or NVIDIA GPUs. docs/how-to/docker.md says how to use it.
#   docker build -t hipgpt .
#   docker build -t hipgpt:cuda --target cuda .

FROM python:3.12-slim-bookworm AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim-bookworm AS installed
# The compiler stays, because kernels are compiled on first use for the processor at hand.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir /wheels/*.whl
# The project is mounted here. Compiled kernels are kept in its .cache, for any user.
ENV HOME=/project
WORKDIR /project
ENTRYPOINT ["hipgpt"]
CMD ["--help"]

# NVRTC is in the Python packages, and the host lends its driver.
FROM installed AS cuda
# hadolint ignore=DL3013
RUN pip install --no-cache-dir "$(ls /wheels/*.whl)[cuda]"
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM installed AS cpu
