/** What the scripts share. */
import { execFileSync } from 'node:child_process'

/** Ends the script with this message. */
export const fail = (message: string): never => {
  throw new Error(message)
}

/** What the command prints. Throws if it fails. */
export const run = (command: string, ...args: string[]) =>
  execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim()

/** Runs a script with its arguments. An error is printed, and the exit code is 1. */
export function start(name: string, main: (args: string[]) => void) {
  try {
    main(process.argv.slice(2))
  } catch (error) {
    console.error(`${name}: ${error instanceof Error ? error.message : error}`)
    process.exitCode = 1
  }
}
