# SPDX-License-Identifier: Apache-2.0
# A base image for function nodes whose programs are Alpine's, with musl (docs/images.md).
# The build context has a layer, unpacked: unzip boxer-layer-amd64.zip -d opt
FROM alpine:3.22
# Certificates: the node reads the network's secret over HTTPS.
RUN apk add --no-cache ca-certificates-bundle
COPY opt/ /opt/
WORKDIR /var/task
ENTRYPOINT ["/opt/bootstrap"]
