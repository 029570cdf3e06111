"""Results that are kept: the keys of calls, the files of results, `cacheable`.

The path of a call: `keys` turns function and arguments into a key (`encode` writes values,
`identity` writes functions), `store` looks for the file of that key, `kept` calls the
function where there is none, `decorator` is what a person types.
"""
