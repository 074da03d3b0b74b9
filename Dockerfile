# An image with everything that the commands need. Build it for CPUs, or for NVIDIA GPUs:
#
#   docker build -t emodarts .
#   docker build -t emodarts --build-arg BASE=nvidia/cuda:13.0.1-base-ubuntu24.04 .
#
# Keep features and runs outside the container; leave out --gpus without a GPU:
#
#   docker run --rm -it --gpus all -v "$PWD/features:/emodarts/features" -v "$PWD/runs:/emodarts/runs" \
#       emodarts python search.py --name first --dataset demo

ARG BASE=ubuntu:24.04
FROM ${BASE}

# graphviz draws the cells; g++ compiles the fast CPU code on first use.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv g++ graphviz \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /emodarts
COPY requirements.txt .
RUN python3 -m venv /venv && /venv/bin/pip install --no-cache-dir -r requirements.txt
ENV PATH=/venv/bin:$PATH

COPY . .
CMD ["python", "search.py", "--help"]
