// What developing says to a person: short lines, and never a stack for what they can see to.
import { ConfigError } from '../src/config.ts'
import { TransientError } from '../src/retry.ts'

/** What a person has to see to; the message says it in a sentence or two. */
export class DevError extends Error {}

/** Nobody waits for longer without being told for what. */
const SILENCE_MS = 1000

export type Say = (text: string) => void

export const say: Say = (text) => void process.stdout.write(`${text}\n`)

/** Waits for `work`, and says what it waits for if that takes more than a second. */
export async function aloud<T>(tell: Say, sentence: () => string, work: Promise<T>): Promise<T> {
  const timer = setTimeout(() => tell(sentence()), SILENCE_MS)
  try {
    return await work
  } finally {
    clearTimeout(timer)
  }
}

/** Runs a command, and tells why it failed. @returns its exit code: 2 for a wrong setting, 1 for what could not be done */
export async function exitCode(command: () => Promise<void>): Promise<number> {
  try {
    await command()
    return 0
  } catch (error) {
    // What the system refuses, such as a folder that cannot be written, says so itself.
    const ours = [DevError, ConfigError, TransientError].some((kind) => error instanceof kind)
    if (!(error instanceof Error) || !(ours || 'syscall' in error)) throw error
    process.stderr.write(`${error.message}\n`)
    return error instanceof ConfigError ? 2 : 1
  }
}
