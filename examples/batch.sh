#!/usr/bin/env bash
# Answer a file of prompts. Stop it as you like: the same command goes on where it was.
set -euo pipefail

questions=${1:-questions.jsonl}
answers=${2:-answers.jsonl}

if [ ! -e "$questions" ]; then
    printf '%s\n' '{"id": "sky", "prompt": "Why is the sky blue?"}' \
        '{"id": "sea", "prompt": "Why is the sea salty?"}' >"$questions"
fi

# Exit code 1: some prompts failed, and have an `error` in the file. 3: a cap was reached.
moa batch "$questions" "$answers" --concurrency 8 --strict --yes
wc -l <"$answers"
