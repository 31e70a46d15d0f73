"""How the files of a published data set are laid out, kind by kind: a folder and a split → examples."""
