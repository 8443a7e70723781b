"""``pagedcore serve``: HTTP in the dialects of OpenAI and Anthropic over :class:`~pagedcore.AsyncLLM`.

``pip install "pagedcore[server]"`` brings what it needs. ``app.py`` has the routes, ``openai/`` and ``anthropic/`` a
file for each endpoint, ``answer/`` takes a model's text apart into thoughts, content and tool calls, ``run.py`` opens
the socket. Everything runs on one event loop; what takes long (parsing, templates, tokenizing) goes to a thread.
"""
