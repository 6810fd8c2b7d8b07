"""A simulated document axis: ``python -m plugins.doc_mgmt.simulator --port 0 --control-port 0 --log FILE``.

An honest partner with its own reading of the wire; shares no code with the plugin.
"""
