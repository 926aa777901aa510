"""Pictures as text and bytes: layered layouts, SVG, charts, rasters, PNG. Knows no networks."""
