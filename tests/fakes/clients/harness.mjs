// The loop of every client script in JavaScript; harness.py describes the lines.

import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers/promises'

// Milliseconds that a model thinks before it calls again.
const THOUGHT = 1000

// The folder of the packages.
export const packages = createRequire(new URL('../../../.venv-node/', import.meta.url))

// Answers every line; `connect(style, at)` opens a client and returns a function that calls a tool.
export async function serve (connect) {
  const connected = {}
  const models = []
  for await (const line of createInterface({ input: process.stdin })) {
    const { style, at, tool, arguments: given, seconds, retry_for: retryFor } = JSON.parse(line)
    if (retryFor) {
      models.push(runModel(connect, { style, at, tool, given, retryFor }))
      continue
    }
    const way = JSON.stringify([style, at])
    const outcome = await (async () => {
      connected[way] ??= await connect(style, at)
      return plain(await connected[way](tool, given, seconds))
    })().catch(error => ({ error: `${error.name}: ${error.message}` }))
    console.log(JSON.stringify(outcome))
  }
  await Promise.all(models)
  process.exit(0)
}

// Plays a model that repeats one call until it is done; harness.py describes its output.
async function runModel (connect, { style, at, tool, given, retryFor }) {
  const read = []
  const until = performance.now() + retryFor * 1000
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
