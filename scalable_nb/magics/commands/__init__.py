"""One file per verb; each holds its entry of the table and the function that runs it.

Whatever is heavy (the engine, the widgets) is imported when a verb runs, so that
``%load_ext scalable_nb`` costs next to nothing.
"""
