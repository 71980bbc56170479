"""The command line: parse, call one library function, render what it returned."""
