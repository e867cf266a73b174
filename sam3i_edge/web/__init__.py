"""The page that runs the model in a browser, and the server for models too large for one.

`static/` is built from `web/` by `npm run build`, and committed.
"""
