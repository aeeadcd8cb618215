"""What verify needs beside it."""
