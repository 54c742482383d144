"""A trained model behind ``/v1/rerank``, in the form that clients of Jina, Cohere and vLLM send and read."""

MAX_CONCURRENT_REQUESTS = 256  # rankings under way or waiting
MAX_DOCUMENTS = 1000  # of a request
