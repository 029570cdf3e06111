"""Stored results: the keys of calls, the files of results, `cacheable`.

The path of a call: `keys` turns function and arguments into a key (`hashing.encoder` writes
values, `hashing.function_identity` writes functions), `store` looks for the file of that key,
`lookup` calls the function if there is none, `decorator` is the public interface.
"""
