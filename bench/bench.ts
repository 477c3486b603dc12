// `npm run bench`: the built service beside a bare server, on one PostgreSQL. Prints what the README says under Speed.
// The load shares the machine with what it measures, so rates mean something only as ratios; CPU time moves far less.
import { once } from 'node:events'
import { compare } from './compare.ts'
import { overload } from './overload.ts'
import { pages } from './pages.ts'
import { parseOptions, setUp } from './setup.ts'
import { stream } from './stream.ts'

const stopping = new AbortController()
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => stopping.abort(new Error(`Stopped by ${name}.`)))
}

async function bench() {
  const set = await setUp(parseOptions(process.argv.slice(2)), stopping.signal)
  try {
    stopping.signal.throwIfAborted()
    const stopped = once(stopping.signal, 'abort').then((): never => {
      throw stopping.signal.reason
    })
    for (const part of [compare, pages, overload, stream]) {
      process.stdout.write(`${await Promise.race([part(set), stopped])}\n\n`)
    }
  } finally {
    // Ends the servers that still run.
    stopping.abort()
    await set.stop()
  }
}

await bench().then(
  () => process.exit(0),
  (error) => {
    process.stderr.write(`${error instanceof Error ? error.message : error}\n`)
    process.exit(1)
  },
)
