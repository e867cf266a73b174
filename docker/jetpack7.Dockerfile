# libsam3i with TensorRT and CUDA on a Jetson with JetPack 7. Written to be read: it was not built here, and no Jetson was
# at hand. JetPack 7 is Ubuntu 24.04 with CUDA 13 and TensorRT 10 for SBSA.
#   docker build -f docker/jetpack7.Dockerfile --build-arg BASE=... -t sam3i-jetson .
#   docker run --runtime nvidia -v $PWD/nano:/nano -v sam3i-engines:/engines sam3i-jetson ...
# BASE: NVIDIA's image with TensorRT's libraries and headers for this JetPack.
ARG BASE
FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends \
      cmake g++ libssl-dev libstb-dev libutf8proc-dev make nlohmann-json3-dev \
    && rm -rf /var/lib/apt/lists/*
# An ONNX Runtime built with --use_cuda --use_tensorrt for this JetPack, as a folder with include/ and lib/ beside this
# file's context; the library names its execution providers, and opening a bundle fails with a line where one is missing.
COPY onnxruntime /opt/ort
COPY native /src/native
COPY sam3i_edge/__init__.py /src/sam3i_edge/__init__.py
RUN cmake -S /src/native -B /build -DSAM3I_ONNXRUNTIME=ON -DSAM3I_EXAMPLES=ON -DORT_ROOT=/opt/ort \
    && cmake --build /build --parallel && cmake --install /build --prefix /opt/sam3i \
    && cp /build/examples/segment /build/examples/camera /usr/local/bin/
# /etc/nv_tegra_release of the host is what device "auto" looks for; engines are kept in the folder that a program names.
VOLUME /engines
ENV LD_LIBRARY_PATH=/opt/sam3i/lib:/opt/ort/lib
