#!/usr/bin/env python3
"""Writes one random-weight model in the forms that Millrace and llama.cpp read, for side_by_side.py.

  models.py FOLDER --millrace build/main/millrace [--shape llama-3.2-1b | qwen2.5-0.5b]

FOLDER/hf         bfloat16 checkpoint of `millrace init`, with a vocabulary of words for every token id
FOLDER/bf16.gguf  the same weights and vocabulary as GGUF version 3
FOLDER/awq        the same shape with random 4-bit matrices: AutoAWQ's layout, groups of 128, zero points

Needs the Python standard library alone. What exists already is kept.
"""
import argparse
import itertools
import json
import os
import shutil
import string
import struct
import subprocess

SHAPES = {
    'llama-3.2-1b': {'family': 'llama', 'overrides': {'rope_scaling': None}},
    'qwen2.5-0.5b': {'family': 'qwen2', 'overrides': {}},
}
GROUP = 128  # of the 4-bit matrices


class Safetensors:
    """A file of tensors, read piece by piece."""

    def __init__(self, path):
        self.file = open(path, 'rb')
        size, = struct.unpack('<Q', self.file.read(8))
        self.entries = json.loads(self.file.read(size))
        self.entries.pop('__metadata__', None)
        self.data = 8 + size

    def shape(self, name):
        return self.entries[name]['shape']

    def read(self, name):
        begin, end = self.entries[name]['data_offsets']
        self.file.seek(self.data + begin)
        return self.file.read(end - begin)


def write_safetensors(path, tensors):
    """tensors: name -> (dtype, shape, function that gives the bytes); bytes are asked for one tensor at a time."""
    width = {'BF16': 2, 'F16': 2, 'I32': 4}
    header, offset = {}, 0
    for name, (dtype, shape, _) in tensors.items():
        size = width[dtype]
        for n in shape:
            size *= n
        header[name] = {'dtype': dtype, 'shape': shape, 'data_offsets': [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    with open(path + '.part', 'wb') as file:
        file.write(struct.pack('<Q', len(text)) + text)
        for make in (entry[2] for entry in tensors.values()):
            file.write(make())
    os.rename(path + '.part', path)


def words(count):
    """`count` different words of letters: all of two, then of three, then of four."""
    letters = itertools.chain.from_iterable(itertools.product(string.ascii_lowercase, repeat=n) for n in (2, 3, 4))
    return [''.join(word) for word in itertools.islice(letters, count)]


def fill_vocabulary(path, size):
    """Every id of the byte-level tokenizer gets a text: pairs, triples and quadruples of letters with their merges."""
    with open(path, encoding='utf-8') as file:
        tokenizer = json.load(file)
    model = tokenizer['model']
    known = len(model['vocab']) + len(tokenizer['added_tokens'])
    for token, word in enumerate(words(size - known), known):
        model['vocab'][word] = token
        model['merges'].append(word[:-1] + ' ' + word[-1])
    with open(path, 'w', encoding='utf-8') as file:
        json.dump(tokenizer, file)


def silence_bytes(path):
    """No answer holds a byte that is no text of its own: llama-server ends answers that are not UTF-8.

    Ids 128 to 255 of the byte-level tokenizer; their logits become 0, below the best of so many random ones.
    """
    source = Safetensors(path)
    name = next(name for name in ('lm_head.weight', 'model.embed_tokens.weight') if name in source.entries)
    row = 2 * source.shape(name)[1]
    with open(path, 'r+b') as file:
        file.seek(source.data + source.entries[name]['data_offsets'][0] + 128 * row)
        file.write(bytes(128 * row))


def make_checkpoint(folder, millrace, shape):
    part = folder + '.part'
    shutil.rmtree(part, ignore_errors=True)
    subprocess.run([millrace, 'init', part, '--family', shape['family'], '--size', shape['size'],
                    '--config-overrides', json.dumps(shape['overrides'])], check=True)
    config = read_json(os.path.join(part, 'config.json'))
    fill_vocabulary(os.path.join(part, 'tokenizer.json'), config['vocab_size'])
    silence_bytes(os.path.join(part, 'model.safetensors'))
    os.rename(part, folder)


def read_json(path):
    with open(path, encoding='utf-8') as file:
        return json.load(file)


# GGUF: little-endian; a string is its length as u64 and its bytes.
U32, F32, STRING, ARRAY = 4, 6, 8, 9
GGML_F32, GGML_BF16 = 0, 30
NORMAL, CONTROL = 1, 3  # kinds of tokens


def gguf_string(text):
    raw = text.encode()
    return struct.pack('<Q', len(raw)) + raw


def gguf_value(value):
    if isinstance(value, int):
        return struct.pack('<II', U32, value)
    if isinstance(value, float):
        return struct.pack('<If', F32, value)
    if isinstance(value, str):
        return struct.pack('<I', STRING) + gguf_string(value)
    if value and isinstance(value[0], int):
        return struct.pack('<IIQ', ARRAY, U32 + 1, len(value)) + struct.pack(f'<{len(value)}i', *value)  # i32
    return struct.pack('<IIQ', ARRAY, STRING, len(value)) + b''.join(map(gguf_string, value))


def vocabulary(folder):
    tokenizer = read_json(os.path.join(folder, 'tokenizer.json'))
    ids = {token: text for text, token in tokenizer['model']['vocab'].items()}
    special = {token['id']: token['content'] for token in tokenizer['added_tokens']}
    ids.update(special)
    tokens = [ids[i] for i in range(len(ids))]
    return {
        'tokenizer.ggml.model': 'gpt2',
        'tokenizer.ggml.pre': 'llama-bpe',
        'tokenizer.ggml.tokens': tokens,
        'tokenizer.ggml.token_type': [CONTROL if i in special else NORMAL for i in range(len(tokens))],
        'tokenizer.ggml.merges': tokenizer['model']['merges'],
    }


def metadata(folder, config):
    arch = config['model_type']
    heads = config['num_attention_heads']
    head_dim = config.get('head_dim') or config['hidden_size'] // heads
    facts = {
        'general.architecture': arch,
        'general.name': 'random',
        'general.file_type': 32,  # mostly bf16
        f'{arch}.block_count': config['num_hidden_layers'],
        f'{arch}.context_length': config['max_position_embeddings'],
        f'{arch}.embedding_length': config['hidden_size'],
        f'{arch}.feed_forward_length': config['intermediate_size'],
        f'{arch}.attention.head_count': heads,
        f'{arch}.attention.head_count_kv': config['num_key_value_heads'],
        f'{arch}.attention.layer_norm_rms_epsilon': float(config['rms_norm_eps']),
        f'{arch}.rope.freq_base': float(config['rope_theta']),
        f'{arch}.rope.dimension_count': head_dim,
        f'{arch}.vocab_size': config['vocab_size'],
        'tokenizer.ggml.bos_token_id': 256,
        'tokenizer.ggml.eos_token_id': config['eos_token_id'],
    }
    return facts | vocabulary(folder)


def gguf_names(layers):
    """Hugging Face name -> GGUF name."""
    names = {'model.embed_tokens': 'token_embd', 'model.norm': 'output_norm', 'lm_head': 'output'}
    parts = {'input_layernorm': 'attn_norm', 'post_attention_layernorm': 'ffn_norm', 'self_attn.q_proj': 'attn_q',
             'self_attn.k_proj': 'attn_k', 'self_attn.v_proj': 'attn_v', 'self_attn.o_proj': 'attn_output',
             'mlp.gate_proj': 'ffn_gate', 'mlp.up_proj': 'ffn_up', 'mlp.down_proj': 'ffn_down'}
    for i in range(layers):
        names.update({f'model.layers.{i}.{hf}': f'blk.{i}.{gguf}' for hf, gguf in parts.items()})
    return {hf + end: gguf + end for hf, gguf in names.items() for end in ('.weight', '.bias')}


def interleaved(raw, rows, head_dim):
    """Rows of each head from halves to neighbours: row 2 j + i was row i * head_dim / 2 + j."""
    size = len(raw) // rows
    order = [head + i * head_dim // 2 + j for head in range(0, rows, head_dim) for j in range(head_dim // 2)
             for i in range(2)]
    return b''.join(raw[row * size:(row + 1) * size] for row in order)


def as_float32(raw):
    wide = bytearray(2 * len(raw))
    wide[2::4], wide[3::4] = raw[0::2], raw[1::2]
    return bytes(wide)


def make_gguf(path, folder):
    config = read_json(os.path.join(folder, 'config.json'))
    source = Safetensors(os.path.join(folder, 'model.safetensors'))
    names = gguf_names(config['num_hidden_layers'])
    facts = metadata(folder, config)
    head_dim = facts[f'{config["model_type"]}.rope.dimension_count']
    turned = ('q_proj.weight', 'k_proj.weight') if config['model_type'] == 'llama' else ()
    header = b'GGUF' + struct.pack('<IQQ', 3, len(source.entries), len(facts))
    header += b''.join(gguf_string(key) + gguf_value(value) for key, value in facts.items())
    offset, sizes = 0, []
    for name in source.entries:
        shape = source.shape(name)
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        header += gguf_string(names[name]) + struct.pack('<I', len(shape))
        header += struct.pack(f'<{len(shape)}Q', *reversed(shape))
        header += struct.pack('<IQ', GGML_BF16 if len(shape) > 1 else GGML_F32, offset)
        sizes.append(count * (2 if len(shape) > 1 else 4))
        offset += sizes[-1] + -sizes[-1] % 32
    with open(path + '.part', 'wb') as file:
        file.write(header + bytes(-len(header) % 32))
        for name, size in zip(source.entries, sizes):
            shape, raw = source.shape(name), source.read(name)
            if name.endswith(turned) and turned:
                raw = interleaved(raw, shape[0], head_dim)
            file.write(raw if len(shape) > 1 else as_float32(raw))
            file.write(bytes(-size % 32))
    os.rename(path + '.part', path)


def make_awq(folder, origin):
    part = folder + '.part'
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(part)
    for name in ('tokenizer.json', 'tokenizer_config.json', 'generation_config.json'):
        shutil.copy(os.path.join(origin, name), part)
    config = read_json(os.path.join(origin, 'config.json'))
    config['quantization_config'] = {'quant_method': 'awq', 'bits': 4, 'group_size': GROUP, 'zero_point': True,
                                     'version': 'gemm'}
    with open(os.path.join(part, 'config.json'), 'w', encoding='utf-8') as file:
        json.dump(config, file, indent=1)
    source, tensors = Safetensors(os.path.join(origin, 'model.safetensors')), {}
    for name in source.entries:
        if name.endswith('_proj.weight'):
            tensors.update(awq_tensors(name[:-len('weight')], *source.shape(name)))
        else:
            tensors[name] = ('BF16', source.shape(name), lambda name=name: source.read(name))
    write_safetensors(os.path.join(part, 'model.safetensors'), tensors)
    os.rename(part, folder)


def awq_tensors(prefix, rows, columns):
    """Random values, zero points of 7 and 8, scales of 0.0040 to 0.0044 that make standard deviations of 0.02."""
    groups = columns // GROUP

    def zeros():
        return bytes((0x77, 0x78, 0x87, 0x88)[byte & 3] for byte in os.urandom(groups * rows // 2))

    def scales():
        return b''.join(struct.pack('<e', 0.0040 + 0.0001 * (byte & 3)) for byte in os.urandom(groups * rows))

    return {
        prefix + 'qweight': ('I32', [columns, rows // 8], lambda: os.urandom(columns * rows // 2)),
        prefix + 'qzeros': ('I32', [groups, rows // 8], zeros),
        prefix + 'scales': ('F16', [groups, rows], scales),
    }


def main():
    parser = argparse.ArgumentParser(description='One random model for Millrace and for llama.cpp.')
    parser.add_argument('folder')
    parser.add_argument('--millrace', required=True, help='the program')
    parser.add_argument('--shape', default='llama-3.2-1b', choices=SHAPES)
    args = parser.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    checkpoint, gguf, awq = (os.path.join(args.folder, name) for name in ('hf', 'bf16.gguf', 'awq'))
    if not os.path.exists(checkpoint):
        make_checkpoint(checkpoint, args.millrace, SHAPES[args.shape] | {'size': args.shape})
    if not os.path.exists(gguf):
        make_gguf(gguf, checkpoint)
    if not os.path.exists(awq):
        make_awq(awq, checkpoint)


if __name__ == '__main__':
    main()
