import type { Refusal } from '../resource.ts'
import { Problem } from './problem.ts'

/**
 * What was done, unless it was refused.
 * @throws Problem that says why
 */
export function done<T extends { version: number }>(noun: string, result: T | Refusal): T {
  if ('outcome' in result) throw problemOf(noun, result)
  return result
}

/**
 * What was found.
 * @throws Problem 404 if it is not there
 */
export function found<T>(noun: string, row: T | undefined): T {
  if (!row) throw problemOf(noun, { outcome: 'missing' })
  return row
}

/** The problem that tells a client why nothing was done; `noun` is the name of what it asked for, such as 'user'. */
export function problemOf(noun: string, refused: Refusal): Problem {
  switch (refused.outcome) {
    case 'missing':
      return new Problem(404, `There is no ${noun} with this id.`)
    case 'stale':
      return new Problem(412, `The ${noun}'s version does not meet the condition of the request.`)
    case 'key-reused':
      return new Problem(422, `This Idempotency-Key has already created a ${noun} from another body.`, {
        type: 'idempotency-key-reused',
      })
    case 'conflict':
      return new Problem(409, `Another ${noun} has this ${refused.fields.join(' and this ')}.`, {
        type: 'conflict',
        errors: refused.fields.map((field) => ({ pointer: `/${field}`, detail: `is taken by another ${noun}` })),
      })
    case 'referenced':
      return new Problem(409, `The ${noun} cannot be deleted: its ${refused.by} are still there.`, { type: 'conflict' })
    case 'reference-missing':
      return new Problem(422, `${refused.field} names nothing that is there`, {
        type: 'validation',
        errors: [{ pointer: `/${refused.field}`, detail: 'names nothing that is there' }],
      })
  }
}
