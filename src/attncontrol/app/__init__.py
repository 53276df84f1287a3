"""The package in a browser, with gradio (``pip install attncontrol[app]``): ``attncontrol app``."""
