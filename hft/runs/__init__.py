"""The whole path of one command, and the folder that it leaves."""
