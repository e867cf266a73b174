"""What people have -> pictures, one after the other: files, folders, globs, videos, cameras, addresses."""
