import fc from 'fast-check'
import { expect, test } from 'vitest'
import { MAX_ID } from '../db/columns.ts'
import { encodeCursor, listParameters, pageOf } from './list.ts'

const read = (cursor: string) => listParameters.cursor.safeParse(cursor)

test('a cursor gives back the id that it was made of', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: MAX_ID }), (id) => {
      expect(read(encodeCursor(id)).data).toBe(id)
    }),
  )
})

test('nothing else is a cursor', () => {
  const almost = ['', 'MTo', 'MTow', 'MTox=', 'MTox ', 'Mjox', 'MTotMQ', 'MToxLjU', 'MTowMQ', encodeCursor(MAX_ID + 1)]
  for (const text of almost) expect(read(text).success, text).toBe(false)
  fc.assert(
    fc.property(fc.string(), (text) => {
      expect(read(text).success).toBe(false)
    }),
  )
})

test('a page says where the next begins, and the last that there is none', () => {
  const rows = [{ id: 1 }, { id: 3 }, { id: 4 }]
  expect(pageOf(rows, 2)).toEqual({ rows: [{ id: 1 }, { id: 3 }], next: encodeCursor(3) })
  expect(pageOf(rows, 3)).toEqual({ rows, next: null })
  expect(pageOf([], 3)).toEqual({ rows: [], next: null })
})
