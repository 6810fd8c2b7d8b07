"""The Excel list as a grassroots union sends it, made by seed, with the result a reader must arrive at."""
