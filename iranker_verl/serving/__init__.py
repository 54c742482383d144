"""A trained model behind ``/v1/rerank``, in the form that clients of Jina, Cohere and vLLM send and read."""
