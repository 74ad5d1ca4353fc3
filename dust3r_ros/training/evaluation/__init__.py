"""Models measured on pairs and sequences whose truth is known: the measures, the data sets, the runs, the table."""
