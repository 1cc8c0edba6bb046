"""Pictures as a source: folders, lists, tar files, arrays and tables of them, each picture with a size of its own."""
