// Which sources have changed. The files are looked at over and over, because that sees every save on every machine: the
// notices of the system miss files that are replaced, run out, and do not come through shared folders.
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

const FOLDERS = ['src', 'assets', 'drizzle']
/** npm writes the second one last when it installs. */
const FILES = ['.env', 'node_modules/.package-lock.json']
const INTERVAL_MS = 250
/** What is written takes so long at most between two files. */
const REST_MS = 100

/** Neither a test nor what editors keep beside the files that they write. */
const isSource = (path: string) =>
  /(^|[\\/])[^.\\/][^\\/]*\.(ts|js|json|css|svg|sql)$/.test(path) && !path.endsWith('.test.ts')

/** A mark for each file; another one each time that it was written or replaced. A look takes about a millisecond. */
function look(root: string): Map<string, string> {
  const names = FOLDERS.flatMap((folder) => list(root, folder)).filter(isSource)
  const marks = new Map<string, string>()
  for (const name of [...names, ...FILES]) {
    const file = statSync(join(root, name), { throwIfNoEntry: false })
    if (file) marks.set(name, `${file.mtimeMs} ${file.size} ${file.ino}`)
  }
  return marks
}

function list(root: string, folder: string): string[] {
  try {
    return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name))
  } catch {
    // Removed just now, as by git: the next look sees what has become of it.
    return []
  }
}

function difference(before: Map<string, string>, after: Map<string, string>): string[] {
  const names = new Set([...before.keys(), ...after.keys()])
  return [...names].filter((name) => before.get(name) !== after.get(name))
}

async function atRest(root: string, signal: AbortSignal) {
  let last = look(root)
  for (;;) {
    await sleep(REST_MS, undefined, { signal })
    const now = look(root)
    if (difference(last, now).length === 0) return now
    last = now
  }
}

/**
 * Begins to watch the sources below `root`.
 * @returns a function that waits for the next change, and until all of it is written. It names the files that changed
 * since it was called last, and rejects with an AbortError when `signal` is aborted
 */
export function watchSources(root: string): (signal: AbortSignal) => Promise<string[]> {
  let seen = look(root)
  return async function nextChange(signal) {
    while (difference(seen, look(root)).length === 0) await sleep(INTERVAL_MS, undefined, { signal })
    const now = await atRest(root, signal)
    const changed = difference(seen, now)
    seen = now
    return changed
  }
}
