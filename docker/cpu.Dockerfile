# libsam3i with ONNX Runtime on a plain CPU. Written to be read: it was not built here.
#   docker build -f docker/cpu.Dockerfile -t sam3i-cpu .
FROM debian:12 AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
      ca-certificates cmake curl g++ libssl-dev libstb-dev libutf8proc-dev make nlohmann-json3-dev \
    && rm -rf /var/lib/apt/lists/*
# The release whose headers and library are linked; its sha256 belongs beside it.
ARG ORT_VERSION
ARG ORT_SHA256
RUN curl -fsSL -o /ort.tgz \
      "https://github.com/microsoft/onnxruntime/releases/download/v${ORT_VERSION}/onnxruntime-linux-x64-${ORT_VERSION}.tgz" \
    && echo "${ORT_SHA256}  /ort.tgz" | sha256sum -c \
    && mkdir /ort && tar -xzf /ort.tgz -C /ort --strip-components=1
COPY native /src/native
COPY sam3i_edge/__init__.py /src/sam3i_edge/__init__.py
RUN cmake -S /src/native -B /build -DSAM3I_ONNXRUNTIME=ON -DSAM3I_EXAMPLES=ON -DORT_ROOT=/ort \
    && cmake --build /build --parallel && cmake --install /build --prefix /opt/sam3i

FROM debian:12
RUN apt-get update && apt-get install -y --no-install-recommends libssl3 libutf8proc2 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/sam3i /opt/sam3i
COPY --from=build /ort/lib /opt/ort/lib
COPY --from=build /build/examples/segment /usr/local/bin/segment
ENV LD_LIBRARY_PATH=/opt/sam3i/lib:/opt/ort/lib
ENTRYPOINT ["segment"]
