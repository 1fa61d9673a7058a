// The loop of every client script in JavaScript; harness.py describes the lines.

import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers/promises'

// Milliseconds that a model thinks before it calls again.
const THOUGHT = 1000

// Where the packages are.
export const packages = createRequire(new URL('../../../.venv-node/', import.meta.url))

// Answers every line; `connect(style, at)` opens a client and returns how to call a tool with it.
export async function serve (connect) {
  const connected = {}
  const intentions = []
  for await (const line of createInterface({ input: process.stdin })) {
    const { style, at, tool, arguments: given, seconds, insist } = JSON.parse(line)
    if (insist) {
      intentions.push(intend(connect, { style, at, tool, given, insist }))
      continue
    }
    const way = JSON.stringify([style, at])
    const outcome = await (async () => {
      connected[way] ??= await connect(style, at)
      return plain(await connected[way](tool, given, seconds))
    })().catch(error => ({ error: `${error.name}: ${error.message}` }))
    console.log(JSON.stringify(outcome))
  }
  await Promise.all(intentions)
  process.exit(0)
}

// Plays a model that wants one thing; harness.py describes its output.
async function intend (connect, { style, at, tool, given, insist }) {
  const read = []
  const until = performance.now() + insist * 1000
  try {
    const call = await connect(style, at)
    do {
      if (read.length) await setTimeout(THOUGHT)
      read.push(await call(tool, given).then(result => plain(result).text, error => `${error.name}: ${error.message}`))
    } while (!read.at(-1).startsWith('done:') && performance.now() < until)
  } catch (error) {
    read.push(`ended by ${error.name}: ${error.message}`)
  }
  console.log(JSON.stringify({ arguments: given, read }))
}

export function plain (result) {
  return { text: result.content[0].text, isError: result.isError === true }
}
