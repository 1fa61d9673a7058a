// The loop of every client script in JavaScript; lines.py says what the lines are.

import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

// Where the packages are.
export const packages = createRequire(new URL('../../../.venv-node/', import.meta.url))

// Answers every line; `connect(style, at)` opens a client and returns how to call a tool with it.
export async function serve (connect) {
  const connected = {}
  for await (const line of createInterface({ input: process.stdin })) {
    const { style, at, tool, arguments: given, seconds } = JSON.parse(line)
    const way = JSON.stringify([style, at])
    const outcome = await (async () => {
      connected[way] ??= await connect(style, at)
      return plain(await connected[way](tool, given, seconds))
    })().catch(error => ({ error: `${error.name}: ${error.message}` }))
    console.log(JSON.stringify(outcome))
  }
  process.exit(0)
}

export function plain (result) {
  return { text: result.content[0].text, isError: result.isError === true }
}
