"""The distributed gallery: the use cases of `service.gallery` over Milvus, for any number of stateless replicas.

What it may not promise stands in docs/operations.md, "Past one machine".
"""
