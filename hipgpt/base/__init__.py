"""Files, errors and words that every wing shares.

Read terminal, errors, files, json_files, csv_file, tables, nested, nearest, log, ordered_map, paths, kernel_constants,
kernel_cache, compiler_answers, instruction_sets, compiler.
"""
