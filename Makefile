.PHONY: protos
protos:  ## Generate p2pnet/pb from protos/*.proto.
	$(PYTHON) protos/generate.py

PYTHON ?= python
