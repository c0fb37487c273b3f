# SPDX-License-Identifier: Apache-2.0
# A base image for function nodes whose programs are Debian's (docs/images.md).
# The build context has a layer, unpacked: unzip boxer-layer-amd64.zip -d opt
FROM debian:12-slim
# Certificates: the node reads the network's secret over HTTPS.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY opt/ /opt/
WORKDIR /var/task
ENTRYPOINT ["/opt/bootstrap"]
