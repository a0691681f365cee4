# ssdiff-trt on the CPU:
#
#     docker build -t ssdiff-trt .
#     docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" ssdiff-trt run pan.tif ms.tif
#
# With other extras: docker build --build-arg EXTRAS=openvino,evaluate -t ssdiff-trt .
FROM python:3.12-slim AS build
ARG EXTRAS=cpu,evaluate
WORKDIR /source
COPY . .
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --prefix /install ".[$EXTRAS]"

FROM python:3.12-slim
LABEL org.opencontainers.image.title="ssdiff-trt" \
      org.opencontainers.image.licenses="Apache-2.0"
# rasterio's wheels leave this library to the system, and the image has it no more.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libexpat1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /install /usr/local
# For the caches of a user whom the image does not know.
ENV HOME=/tmp
WORKDIR /data
USER 65534
ENTRYPOINT ["ssdiff-trt"]
CMD ["--help"]
