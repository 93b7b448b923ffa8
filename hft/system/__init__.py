"""What a process and a disk do: atomic files, processes, where code comes from, the stage cache."""
