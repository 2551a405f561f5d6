"""The web API: ``threedfa serve``. Needs the extra ``[web]``; see docs/web_api.md."""
