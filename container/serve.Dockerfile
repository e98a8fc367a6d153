# The service with a model inside:
#   docker build -f container/serve.Dockerfile -t nnunetv2-mip-serve .
#   docker run --rm -p 9051:9051 nnunetv2-mip-serve --never_empty
# A model of your own (a folder as nnUNetv2_mip_export_model writes it, inside the build context):
#   docker build -f container/serve.Dockerfile --build-arg MODEL=my_model -t my-serve .
FROM python:3.11-slim

ARG MODEL=nnunetv2_mip/models/mip_pet

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    # Idle threads sleep instead of spinning: several callers share few cores.
    OMP_WAIT_POLICY=PASSIVE \
    # Compiled kernels and settings go where a user without a home may write.
    HOME=/tmp \
    NUMBA_CACHE_DIR=/tmp/numba \
    MPLCONFIGDIR=/tmp/matplotlib \
    HOST_IP=0.0.0.0 \
    MODEL_NAME=${MODEL} \
    CONTAINER_PORT=9051

WORKDIR /opt/nnunetv2_mip
COPY setup.py pyproject.toml README.md constraints.txt ./
COPY nnunetv2_mip nnunetv2_mip
COPY dataset_conversion dataset_conversion
COPY trainers trainers
COPY plans plans
RUN pip install -c constraints.txt ".[serve,dicom]"
COPY ${MODEL} /opt/model

RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin serve
USER 10001
WORKDIR /tmp
EXPOSE 9051

HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 CMD \
    ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['CONTAINER_PORT']}/health\", timeout=4)"]

# SIGTERM reaches the service itself, which answers who is being served and then ends.
ENTRYPOINT ["nnUNetv2_mip_serve", "-m", "/opt/model"]
