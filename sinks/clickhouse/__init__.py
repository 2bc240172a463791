"""Findings and failures as rows in ClickHouse, a server or the embedded engine, and read back.

Import from the modules: `settings.ClickHouseSettings`, `sink.ClickHouseSink`,
`reader.ClickHouseReader`. Nothing is imported here, because the sink needs torch (a frame holds
pixels), and neither the engine's process nor `imagewire sql` shall load it.
"""
