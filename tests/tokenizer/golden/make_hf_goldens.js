// Fills in "ids" and "decoded" of a golden file with what the Hugging Face tokenizers library says.
//   npm install @anush008/tokenizers@0.6.0
//   node make_hf_goldens.js hf_pipelines.json            # pipelines described in the file
//   node make_hf_goldens.js hf_files.json DIRECTORY      # tokenizer.json files at DIRECTORY/<case>/tokenizer.json
// ids: with special tokens added, one list for each text. decoded: all of them, special tokens kept.
const fs = require('fs');
const os = require('os');
const path = require('path');
const {Tokenizer} = require('@anush008/tokenizers');

function pipeline(golden, c) {
  return {
    version: '1.0', truncation: null, padding: null, added_tokens: c.added_tokens,
    normalizer: golden.normalizers[c.normalizer], pre_tokenizer: golden.pre_tokenizers[c.pre_tokenizer],
    post_processor: golden.post_processors[c.post_processor], decoder: golden.decoders[c.decoder],
    model: golden.models[c.model],
  };
}

async function main() {
  const [file, directory] = process.argv.slice(2);
  const golden = JSON.parse(fs.readFileSync(file, 'utf8'));
  const temporary = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'hf-')), 'tokenizer.json');
  for (const c of golden.cases) {
    if (!directory) fs.writeFileSync(temporary, JSON.stringify(pipeline(golden, c)));
    const tokenizer = Tokenizer.fromFile(directory ? path.join(directory, c.name, 'tokenizer.json') : temporary);
    tokenizer.disableTruncation();
    tokenizer.disablePadding();
    c.ids = [];
    c.decoded = [];
    for (const text of golden.texts) {
      const encoding = await tokenizer.encode(text, null, {addSpecialTokens: true});
      const ids = Array.from(encoding.getIds());
      c.ids.push(ids);
      c.decoded.push(await tokenizer.decode(ids, false));
    }
  }
  const lines = golden.cases.map((c) => JSON.stringify(c));
  const head = Object.entries(golden).filter(([key]) => key !== 'cases');
  const text = head.map(([key, value]) => `${JSON.stringify(key)}: ${JSON.stringify(value)}`).join(',\n');
  fs.writeFileSync(file, `{${text},\n"cases": [\n${lines.join(',\n')}\n]}\n`);
}
main();
