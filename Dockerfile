# syntax=docker/dockerfile:1
# docker build --target serve -t plantml-serve:0.1.0 .     the API and the page; on the processor, without torch
# docker build --target worker -t plantml-worker:0.1.0 .   trains; on an NVIDIA GPU with --gpus all, else on the processor
# docker build --target mlflow -t plantml-mlflow:0.1.0 .   the MLflow that compose.yaml starts
# More packages, such as gcsfs for gs:// URLs: --build-arg PACKAGES=gcsfs
ARG PYTHON=3.11

# Not slim: the kernels for the pixels of photos are compiled here.
FROM python:${PYTHON}-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/plantml
ENV PATH=/opt/plantml/bin:$PATH
WORKDIR /source
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src src

FROM build AS build-serve
ARG PACKAGES=
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt '.[serve,postgresql,heif]' ${PACKAGES}

# torch comes with its CUDA libraries; of the system it needs the driver only.
FROM build AS build-worker
ARG PACKAGES=
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt '.[all,postgresql,mlflow]' ${PACKAGES}

FROM build AS build-mlflow
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt 'mlflow>=3,<4'

FROM python:${PYTHON}-slim-bookworm AS base
RUN groupadd --system --gid 10001 plantml \
 && useradd --system --uid 10001 --gid plantml --create-home --home-dir /var/lib/plantml plantml \
 && install --directory --owner plantml --group plantml /var/cache/plantml
# The root may be read-only: what is written goes to these folders and to /tmp.
ENV PATH=/opt/plantml/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PLANTML_CACHE_DIR=/var/cache/plantml \
    MPLCONFIGDIR=/tmp/matplotlib
USER 10001:10001
WORKDIR /var/lib/plantml
ENTRYPOINT ["plantml"]
CMD ["--help"]

FROM base AS worker
# The image has no git, and MLflow would warn of it in the log of every training.
ENV GIT_PYTHON_REFRESH=quiet
COPY --from=build-worker /opt/plantml /opt/plantml

FROM base AS mlflow
COPY --from=build-mlflow /opt/plantml /opt/plantml
ENTRYPOINT ["mlflow"]

FROM base AS serve
COPY --from=build-serve /opt/plantml /opt/plantml
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
