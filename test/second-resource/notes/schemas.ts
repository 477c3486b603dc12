import * as z from 'zod'
import { MAX_ID } from '../../../src/db/columns.ts'
import { time } from '../../../src/fields.ts'
import { ID, listQuery } from '../../../src/http/list.ts'
import type { ResourceOptions } from '../../../src/http/openapi.ts'

const userId = z
  .int('must be a whole number')
  .min(1)
  .max(MAX_ID)
  .meta({ format: 'int64', examples: [1] })
const text = z
  .string('must be a string')
  .regex(/^[^\p{Cc}]{1,500}$/u, 'must have 1 to 500 characters, and no control characters')
  .meta({ minLength: 1, maxLength: 500, examples: ['Call back'] })

export const NoteInput = z.strictObject({ userId, text }, 'must be a JSON object')
export const NotePatch = NoteInput.partial()
export const ListQuery = listQuery({})

export const noteAnswer = () => z.object({ id: z.int().meta(ID), userId, text, createdAt: time, updatedAt: time })

export const describeNotes = (): ResourceOptions => ({
  name: 'note',
  plural: 'notes',
  query: ListQuery,
  input: NoteInput,
  patch: NotePatch,
  item: noteAnswer(),
})

export type NoteInput = z.output<typeof NoteInput>
export type NotePatch = z.output<typeof NotePatch>
export type Note = z.output<ReturnType<typeof noteAnswer>>
