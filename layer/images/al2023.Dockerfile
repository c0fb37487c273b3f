# SPDX-License-Identifier: Apache-2.0
# A base image for function nodes whose programs are Amazon Linux' (docs/images.md).
# The build context has a layer, unpacked: unzip boxer-layer-amd64.zip -d opt
FROM amazonlinux:2023
# Certificates: the node reads the network's secret over HTTPS.
RUN dnf install -y ca-certificates \
    && dnf clean all
COPY opt/ /opt/
WORKDIR /var/task
ENTRYPOINT ["/opt/bootstrap"]
