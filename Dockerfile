# ssdiff-trt on the CPU:
#
#     docker build -t ssdiff-trt .
#     docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" ssdiff-trt run pan.tif ms.tif
FROM python:3.12-slim AS build
WORKDIR /source
COPY . .
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --prefix /install ".[cpu,picture]"

FROM python:3.12-slim
LABEL org.opencontainers.image.title="ssdiff-trt" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /install /usr/local
WORKDIR /data
USER 65534
ENTRYPOINT ["ssdiff-trt"]
CMD ["--help"]
