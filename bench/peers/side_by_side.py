#!/usr/bin/env python3
"""Runs Millrace and llama.cpp side by side on one random model and prints ratios of medians.

  side_by_side.py MODELS --millrace build/main/millrace --bench-decoder build/main/bench/models/bench_decoder \
      --llama-bin FOLDER [--rounds 3] [--only library|http] [--classes bf16 int8 int4]

MODELS      what models.py wrote; q8_0.gguf and q4_0.gguf are added with llama-quantize
llama-bin   folder with llama-bench, llama-quantize and llama-server; without the last, llama-batched-bench stands
            for it: the same batches without HTTP, the most that its server can reach

Both sides take turns within each round, on the same threads, so that the machine's drift meets both. Needs the Python
standard library alone; servers listen on 127.0.0.1.
"""
import argparse
import contextlib
import json
import os
import shlex
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

# Precision classes: our format for the decoder, our arguments for the server, their file.
CLASSES = {
    'bf16': {'format': 'none', 'serve': ['hf'], 'gguf': 'bf16', 'prefill': 512},
    'int8': {'format': 'w8a8', 'serve': ['hf', '--quantization', 'w8a8'], 'gguf': 'q8_0', 'prefill': 512},
    'int4': {'format': 'w4a16', 'serve': ['awq'], 'gguf': 'q4_0', 'prefill': 2048},
}
CONTEXT = 512  # tokens before the decoded one


class Samples:
    """Measured values by name, of both sides."""

    def __init__(self):
        self.values = {}

    def add(self, name, values):
        self.values.setdefault(name, []).extend(values)

    def median(self, name):
        return statistics.median(self.values[name]) if self.values.get(name) else None


def run(args, command):
    return subprocess.run(shlex.split(args.prefix) + command, check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True).stdout


def gguf(args, kind):
    return os.path.join(args.models, kind + '.gguf')


def quantize(args):
    for kind in ('q8_0', 'q4_0'):
        if not os.path.exists(gguf(args, kind)):
            program = os.path.join(args.llama_bin, 'llama-quantize')
            subprocess.run([program, gguf(args, 'bf16'), gguf(args, kind), kind], check=True)


def our_decoder(args, form, prefill, streams, samples):
    """Seconds of prefill and of decode steps, and the parts of their ceilings."""
    output = run(args, [args.bench_decoder, '--shape', args.shape, '--quantization', form, '--prefill', str(prefill),
                        '--context', str(CONTEXT), '--streams', *map(str, streams), '--rounds', '3', '--json'])
    for line in map(json.loads, output.splitlines()):
        count = line['tokens'] if line['measure'] == 'prefill' else line['streams']
        name = f'ours {form} {line["measure"]} {count}'
        samples.add(name, [line['tokens'] / seconds for seconds in line['seconds']])
        samples.add(name + ' share', [line['share']])


def their_bench(args, kind, prefill, samples):
    output = run(args, [os.path.join(args.llama_bin, 'llama-bench'), '-m', gguf(args, kind), '-t', str(args.threads),
                        '-p', str(prefill), '-n', '0', '-r', '2', '-o', 'json'])
    output_decode = run(args, [os.path.join(args.llama_bin, 'llama-bench'), '-m', gguf(args, kind), '-t',
                               str(args.threads), '-p', '0', '-n', '16', '-d', str(CONTEXT), '-r', '2', '-o', 'json'])
    for entry in json.loads(output) + json.loads(output_decode):
        measure = f'prefill {prefill}' if entry['n_prompt'] else 'decode 1'
        samples.add(f'theirs {kind} {measure}', entry['samples_ts'])


def library(args, samples):
    for number in range(args.rounds):
        progress(args, f'library, round {number + 1} of {args.rounds}')
        for name in args.classes:
            kind = CLASSES[name]
            our_decoder(args, kind['format'], kind['prefill'], (1, 16), samples)
            their_bench(args, kind['gguf'], kind['prefill'], samples)
        if 'int8' in args.classes:
            our_decoder(args, 'w8a16', 512, (1,), samples)


@contextlib.contextmanager
def serving(args, command, port, log):
    """A server that answers /health; ended on the way out."""
    process = subprocess.Popen(shlex.split(args.prefix) + command, stdout=log, stderr=log)
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise RuntimeError(f'{command[0]} ended with {process.returncode}; see {log.name}')
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                if urllib.request.urlopen(f'http://127.0.0.1:{port}/health', timeout=5).status == 200:
                    break
            time.sleep(0.5)
        else:
            raise RuntimeError(f'{command[0]} does not answer on port {port}')
        yield process
    finally:
        process.terminate()
        process.wait()


def our_server(args, kind, port):
    model, *flags = kind['serve']
    return [args.millrace, 'serve', os.path.join(args.models, model), '--host', '127.0.0.1', '--port', str(port),
            '--max-model-len', '4096', *flags, *shlex.split(args.millrace_args)]


def their_server(args, kind, port):
    length = args.prompt_tokens + args.output_tokens + 8
    return [os.path.join(args.llama_bin, 'llama-server'), '-m', gguf(args, kind['gguf']), '--host', '127.0.0.1',
            '--port', str(port), '-t', str(args.threads), '-tb', str(args.threads), '-np', str(args.clients),
            '-c', str(args.clients * length), *shlex.split(args.llama_args)]


def load(args, port, seed):
    """Output tokens per second of one round of all clients. Every answer must have its full length."""
    with tempfile.TemporaryDirectory() as folder:
        result = os.path.join(folder, 'load.json')
        command = [args.millrace, 'bench', 'parallel', '--host', '127.0.0.1', '--port', str(port), '--parallel-num',
                   str(args.clients), '--prompt-tokens', str(args.prompt_tokens), '--output-tokens',
                   str(args.output_tokens), '--epochs', '1', '--num-warmups', '1', '--seed', str(seed),
                   '--output-json', result]
        subprocess.run(shlex.split(args.prefix) + command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with open(result, encoding='utf-8') as file:
            figures = json.load(file)['points'][0]['figures']
    wanted = args.clients * args.output_tokens
    if figures['output_tokens'] != wanted:
        raise RuntimeError(f'port {port}: {figures["output_tokens"]} tokens came, {wanted} were asked for')
    return figures['output_throughput']


def their_batches(args, kind):
    """Output tokens per second of llama-batched-bench with the load's sequences."""
    length = args.prompt_tokens + args.output_tokens + 8
    output = run(args, [os.path.join(args.llama_bin, 'llama-batched-bench'), '-m', gguf(args, kind['gguf']), '-t',
                        str(args.threads), '-tb', str(args.threads), '-c', str(args.clients * length), '-npp',
                        str(args.prompt_tokens), '-ntg', str(args.output_tokens), '-npl', str(args.clients),
                        '--output-format', 'jsonl'])
    entry = json.loads(next(line for line in output.splitlines() if line.startswith('{')))
    return args.clients * args.output_tokens / (entry['t_pp'] + entry['t_tg'])


def http(args, samples):
    has_server = os.path.exists(os.path.join(args.llama_bin, 'llama-server'))
    for name in args.classes:
        kind = CLASSES[name]
        with open(os.path.join(args.models, 'servers.log'), 'w', encoding='utf-8') as log, contextlib.ExitStack() as up:
            up.enter_context(serving(args, our_server(args, kind, args.port), args.port, log))
            if has_server:
                up.enter_context(serving(args, their_server(args, kind, args.port + 1), args.port + 1, log))
            for number in range(args.rounds):
                progress(args, f'{name} through HTTP, round {number + 1} of {args.rounds}')
                samples.add(f'ours {name} http', [load(args, args.port, seed=1000 + number)])
                theirs = load(args, args.port + 1, seed=1000 + number) if has_server else their_batches(args, kind)
                samples.add(f'theirs {name} {"http" if has_server else "batches"}', [theirs])


def progress(args, text):
    if not args.quiet:
        print(text, flush=True)


def ratio(a, b):
    return a / b if a and b else None


def table(args, samples):
    """Rows of (measure, must, aim, value, detail)."""
    def rate(name):
        return samples.median(name)

    def against(measure, must, aim, form, kind):
        ours, theirs = rate(f'ours {form} {measure}'), rate(f'theirs {kind} {measure}')
        share = rate(f'ours {form} {measure} share')
        detail = f'{ours:.1f} and {theirs:.1f} tokens/s; {100 * share:.0f} % of the ceiling' if ours and theirs else ''
        return (f'{measure}, {form} and {kind}', must, aim, ratio(ours, theirs), detail)

    def bandwidth(form, must):
        share = rate(f'ours {form} decode 1 share')
        return (f'decode 1 at {CONTEXT}, {form}', must, 0.95, share, 'of the read bandwidth')

    rows = [against('prefill 512', 10, 20, 'none', 'bf16'), against('prefill 512', 8, 16, 'w8a8', 'q8_0'),
            against('prefill 2048', 6, None, 'w4a16', 'q4_0'),
            bandwidth('none', 0.85), bandwidth('w8a16', 0.85), bandwidth('w4a16', 0.80),
            against('decode 1', None, None, 'none', 'bf16'), against('decode 1', None, None, 'w8a8', 'q8_0'),
            against('decode 1', None, None, 'w4a16', 'q4_0')]
    one, many = rate('ours w8a8 decode 1'), rate('ours w8a8 decode 16')
    rows.append(('decode 16 streams over one, w8a8', 8, 12, ratio(many, one), ''))
    for name in args.classes:
        ours, theirs = rate(f'ours {name} http'), rate(f'theirs {name} http') or rate(f'theirs {name} batches')
        detail = f'{ours:.1f} and {theirs:.1f} tokens/s' if ours and theirs else ''
        if detail and not rate(f'theirs {name} http'):
            detail += ' (theirs without HTTP)'
        rows.append((f'{args.clients} clients through HTTP, {name}', 8, 20, ratio(ours, theirs), detail))
    return [row for row in rows if row[3] is not None]


def show(rows):
    print(f'{"measure":44} {"must":>5} {"aim":>5} {"here":>7}')
    for measure, must, aim, value, detail in rows:
        verdict = '' if must is None else 'ok' if value >= must else 'below'
        print(f'{measure:44} {must or "":>5} {aim or "":>5} {value:7.2f} {verdict:6} {detail}')


def main():
    parser = argparse.ArgumentParser(description='Millrace and llama.cpp side by side.')
    parser.add_argument('models', help='folder that models.py filled')
    parser.add_argument('--millrace', required=True, help='the program')
    parser.add_argument('--bench-decoder', help='bench/models/bench_decoder of the build')
    parser.add_argument('--llama-bin', required=True, help='folder of llama-bench, llama-server, llama-quantize')
    parser.add_argument('--shape', default='llama-3.2-1b', help='what bench_decoder measures: that of the models')
    parser.add_argument('--classes', nargs='+', default=list(CLASSES), choices=CLASSES)
    parser.add_argument('--only', choices=('library', 'http'))
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--threads', type=int, default=os.cpu_count())
    parser.add_argument('--clients', type=int, default=32)
    parser.add_argument('--prompt-tokens', type=int, default=256)
    parser.add_argument('--output-tokens', type=int, default=128)
    parser.add_argument('--port', type=int, default=8810, help='and the next one')
    parser.add_argument('--millrace-args', default='', help='more arguments of millrace serve')
    parser.add_argument('--llama-args', default='', help='more arguments of llama-server')
    parser.add_argument('--prefix', default='', help='words before every measured program, as taskset or nice')
    parser.add_argument('--output-json', help='keep all samples')
    parser.add_argument('--quiet', action='store_true')
    args = parser.parse_args()
    samples = Samples()
    quantize(args)
    try:
        if args.only != 'http':
            library(args, samples)
        if args.only != 'library':
            http(args, samples)
    finally:
        if args.output_json:
            with open(args.output_json, 'w', encoding='utf-8') as file:
                json.dump(samples.values, file, indent=1)
        show(table(args, samples))


if __name__ == '__main__':
    main()
