"""Where work runs, and how: Dask clusters and a bounded-window runner; knows no images."""
