/* Enough JSON to read a configuration: values are looked at where they stand. */
#ifndef POSTERN_JSON_H
#define POSTERN_JSON_H

#include "postern.h"

/* A walk over the members of an object or the items of an array. */
typedef struct {
  postern_text rest;
  bool is_object;
  bool is_first;
  /* The text is not what it should be; the walk has ended. */
  bool is_bad;
} postern_json;

/* Begins a walk over this value. */
postern_json postern_json_open(postern_text value);
/* The next member; `key` is empty in an array. False: there is none, or the text is bad. */
bool postern_json_next(postern_json *walk, postern_text *key, postern_text *value);

/* The text of a value that is a string. What has escapes in it is copied, and outlives the phase. */
bool postern_json_text(postern_text value, postern_text *text);
/* The number of a value that is a whole one, not negative, and at most 4,294,967,295. */
bool postern_json_number(postern_text value, uint32_t *number);

#endif
